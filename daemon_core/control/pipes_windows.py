"""What the control API's named pipe needs of Windows. **Written, not yet tried.**

Who asks is told by the system and not by the process id alone, which may be another process's by the time
that one looks: the server takes the client's own token from the pipe. A client cannot do that to a server,
so it goes by the process that made the pipe.

Nobody else gets that far as a rule: the pipe's default security lets this user, the system and
administrators write to it, and everybody else read at most. A client from the network is refused here.
"""

from __future__ import annotations

import _winapi
import ctypes
import functools
import os
import sys
from ctypes import wintypes
from typing import Final

from daemon_core.control import pipes
from daemon_core.control.peers import ANOTHER_USER, OWN_USER, Peer

assert sys.platform == "win32"

_ERROR_IO_PENDING: Final = 997
_ERROR_PIPE_LOCAL: Final = 229
_PROCESS_QUERY_LIMITED_INFORMATION: Final = 0x1000
_SQOS_IDENTIFICATION: Final = 0x0010_0000 | 0x0001_0000
"""SECURITY_SQOS_PRESENT and SECURITY_IDENTIFICATION: a server may see who we are and not act as us."""
_TOKEN_QUERY: Final = 0x0008
_TOKEN_USER: Final = 1
_INFINITE: Final = 0xFFFF_FFFF
_COMPUTER_NAME_CHARACTERS: Final = 256

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)

_HANDLE_OUT = ctypes.POINTER(wintypes.HANDLE)
_DWORD_OUT = ctypes.POINTER(wintypes.DWORD)

# Without these ctypes would take handles for 32-bit numbers.
_kernel32.GetCurrentProcess.restype = wintypes.HANDLE
_kernel32.GetCurrentThread.restype = wintypes.HANDLE
_kernel32.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
_kernel32.OpenProcess.restype = wintypes.HANDLE
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
_kernel32.LocalFree.argtypes = [ctypes.c_void_p]
_kernel32.LocalFree.restype = ctypes.c_void_p
_kernel32.GetNamedPipeClientProcessId.argtypes = [wintypes.HANDLE, _DWORD_OUT]
_kernel32.GetNamedPipeServerProcessId.argtypes = [wintypes.HANDLE, _DWORD_OUT]
_kernel32.GetNamedPipeClientComputerNameW.argtypes = [wintypes.HANDLE, wintypes.LPWSTR, wintypes.ULONG]
_advapi32.OpenProcessToken.argtypes = [wintypes.HANDLE, wintypes.DWORD, _HANDLE_OUT]
_advapi32.OpenThreadToken.argtypes = [wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, _HANDLE_OUT]
_advapi32.GetTokenInformation.argtypes = [
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    _DWORD_OUT,
]
_advapi32.ConvertSidToStringSidW.argtypes = [ctypes.c_void_p, ctypes.POINTER(wintypes.LPWSTR)]
_advapi32.ImpersonateNamedPipeClient.argtypes = [wintypes.HANDLE]
_advapi32.RevertToSelf.argtypes = []


@functools.cache
def own_user() -> str:
    """This user's security identifier as text. Raises ``OSError``."""
    return _process_user(wintypes.HANDLE(_kernel32.GetCurrentProcess()))


def client_of(pipe: int) -> Peer | None:
    """Process and user at the other end of the server's handle; None if from the network, or not to be told.

    Call it once something was read from the pipe: the token is that of the last message.
    """
    pid = wintypes.DWORD()
    if not _is_local(pipe) or not _kernel32.GetNamedPipeClientProcessId(pipe, ctypes.byref(pid)):
        return None
    try:
        own = _client_user(pipe) == own_user()
    except OSError:
        return None
    return Peer(pid.value, OWN_USER if own else ANOTHER_USER)


class SystemCalls:
    """``pipes.Calls``."""

    def open(self, name: str) -> int:
        return _winapi.CreateFile(
            name,
            _winapi.GENERIC_READ | _winapi.GENERIC_WRITE,
            0,
            _winapi.NULL,
            _winapi.OPEN_EXISTING,
            _winapi.FILE_FLAG_OVERLAPPED | _SQOS_IDENTIFICATION,
            _winapi.NULL,
        )

    def wait_free(self, name: str, limit_ms: int) -> None:
        _winapi.WaitNamedPipe(name, max(1, limit_ms))  # 0 would be the server's own limit

    def is_own_server(self, handle: int) -> bool:
        pid = wintypes.DWORD()
        if not _kernel32.GetNamedPipeServerProcessId(handle, ctypes.byref(pid)):
            return False
        process = wintypes.HANDLE(_kernel32.OpenProcess(_PROCESS_QUERY_LIMITED_INFORMATION, False, pid.value))
        if not process.value:
            return False
        try:
            return _process_user(process) == own_user()
        except OSError:
            return False  # whom one may not look at is somebody else
        finally:
            _kernel32.CloseHandle(process)

    def read(self, handle: int, limit: int) -> _Overlapped:
        return _Overlapped(*_winapi.ReadFile(handle, limit, overlapped=True))

    def write(self, handle: int, data: bytes) -> _Overlapped:
        return _Overlapped(*_winapi.WriteFile(handle, data, overlapped=True))

    def close(self, handle: int) -> None:
        _winapi.CloseHandle(handle)


class _Overlapped:
    """``pipes.Operation``."""

    def __init__(self, operation: _winapi.Overlapped, code: int) -> None:
        self._operation = operation
        self._pending = code == _ERROR_IO_PENDING

    def wait(self, limit_ms: int | None) -> bool:
        if not self._pending:
            return True
        # Of several, although it is one: on the main thread only this wait ends with Ctrl+C.
        limit_ms = _INFINITE if limit_ms is None else limit_ms
        found = _winapi.WaitForMultipleObjects([self._operation.event], False, limit_ms)
        return found == _winapi.WAIT_OBJECT_0

    def cancel(self) -> None:
        self._operation.cancel()

    def finish(self) -> int:
        count, code = self._operation.GetOverlappedResult(True)
        if code == pipes.ERROR_OPERATION_ABORTED:
            raise ctypes.WinError(code)
        return count

    def data(self) -> bytes:
        return self._operation.getbuffer() or b""


def _is_local(pipe: int) -> bool:
    name = ctypes.create_unicode_buffer(_COMPUTER_NAME_CHARACTERS)
    if _kernel32.GetNamedPipeClientComputerNameW(pipe, name, ctypes.sizeof(name)):
        return False
    return ctypes.get_last_error() == _ERROR_PIPE_LOCAL


def _client_user(pipe: int) -> str:
    """The user of the client by its token. For some microseconds this thread is the client; nothing else is
    done meanwhile."""
    token = wintypes.HANDLE()
    if not _advapi32.ImpersonateNamedPipeClient(pipe):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        opened = _advapi32.OpenThreadToken(
            wintypes.HANDLE(_kernel32.GetCurrentThread()), _TOKEN_QUERY, True, ctypes.byref(token)
        )
        code = ctypes.get_last_error()
    finally:
        if not _advapi32.RevertToSelf():
            os.abort()  # or all that follows would be done in somebody else's name
    if not opened:
        raise ctypes.WinError(code)
    return _token_user(token)


def _process_user(process: wintypes.HANDLE) -> str:
    token = wintypes.HANDLE()
    if not _advapi32.OpenProcessToken(process, _TOKEN_QUERY, ctypes.byref(token)):
        raise ctypes.WinError(ctypes.get_last_error())
    return _token_user(token)


def _token_user(token: wintypes.HANDLE) -> str:
    """Whose token it is; closes it."""
    try:
        return _user_of(token)
    finally:
        _kernel32.CloseHandle(token)


def _user_of(token: wintypes.HANDLE) -> str:
    size = wintypes.DWORD()
    _advapi32.GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(max(size.value, ctypes.sizeof(ctypes.c_void_p)))
    if not _advapi32.GetTokenInformation(token, _TOKEN_USER, buffer, len(buffer), ctypes.byref(size)):
        raise ctypes.WinError(ctypes.get_last_error())
    # TOKEN_USER begins with a pointer to the identifier, which is further back in the same buffer.
    identifier = ctypes.c_void_p.from_buffer(buffer)
    text = wintypes.LPWSTR()
    if not _advapi32.ConvertSidToStringSidW(identifier, ctypes.byref(text)):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        return text.value or ""
    finally:
        _kernel32.LocalFree(ctypes.cast(text, ctypes.c_void_p))
