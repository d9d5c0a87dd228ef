"""What a screen reader is told: the tree of one program, read from a real accessibility bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

PATIENCE_S: Final = 30.0
ACCESSIBLE: Final = "org.a11y.atspi.Accessible"
SHOWING: Final = 1 << 25
CHECKED: Final = 1 << 4


@dataclass(slots=True)
class Node:
    """One object. ``states`` is a set of bits as AT-SPI numbers them."""

    owner: str
    path: str
    role: str
    name: str
    states: int
    interfaces: list[str]
    children: list[Node] = field(default_factory=list)

    def all(self) -> Iterator[Node]:
        """It and everything below it."""
        yield self
        for child in self.children:
            yield from child.all()

    @property
    def showing(self) -> bool:
        return bool(self.states & SHOWING)

    @property
    def checked(self) -> bool:
        return bool(self.states & CHECKED)

    def __str__(self) -> str:
        return f"{self.role} {self.name!r}"


class Reader:
    """A screen reader's side of the bus."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self._at_once = asyncio.Semaphore(24)  # the library fails where the socket's buffer is full

    async def call(
        self, owner: str, path: str, interface: str, member: str, *body: Any, signature: str = ""
    ) -> Any:
        async with self._at_once:
            answer = await self.bus.call(
                Message(owner, path, interface, member, signature=signature, body=list(body))
            )
        assert answer is not None
        if answer.message_type is not MessageType.METHOD_RETURN:
            raise LookupError(f"{path} {member}: {answer.body}")
        return answer.body[0] if answer.body else None

    async def read(self, owner: str, path: str, depth: int = 40) -> Node:
        """An object with everything below it."""
        role, name, states, interfaces, children = await asyncio.gather(
            self.call(owner, path, ACCESSIBLE, "GetRoleName"),
            self.call(
                owner, path, "org.freedesktop.DBus.Properties", "Get", ACCESSIBLE, "Name", signature="ss"
            ),
            self.call(owner, path, ACCESSIBLE, "GetState"),
            self.call(owner, path, ACCESSIBLE, "GetInterfaces"),
            self.call(owner, path, ACCESSIBLE, "GetChildren"),
        )
        node = Node(owner, path, role, name.value, states[0] | states[1] << 32, interfaces)
        if depth:
            found = await asyncio.gather(
                *(self.read(owner, path, depth - 1) for owner, path in children), return_exceptions=True
            )
            # What went away between two questions is not there.
            node.children = [child for child in found if isinstance(child, Node)]
        return node

    async def program(self, name: str) -> Node:
        """The tree of a program."""
        return await self.until(name, lambda tree: bool(tree.children))

    async def until(self, name: str, reached: Callable[[Node], bool]) -> Node:
        """The tree of a program, once it is as wanted."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        found: Node | None = None
        while True:
            root = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")
            for owner, path in await self.call(*root, ACCESSIBLE, "GetChildren"):
                try:
                    found = await self.read(owner, path)
                except LookupError:
                    continue  # it changed while it was read
                if found.name == name and reached(found):
                    return found
            last = [str(node) for node in found.all()] if found is not None else None
            assert asyncio.get_running_loop().time() < deadline, f"not on the accessibility bus: {last}"
            await asyncio.sleep(0.1)

    async def until_node(self, name: str, role: str, text: str, *, parts: bool = False) -> Node:
        """An object of a program by its role and name; ``parts``: the name has this in it."""

        def found(tree: Node) -> Node | None:
            for node in tree.all():
                if node.role == role and (text in node.name if parts else text == node.name):
                    return node
            return None

        tree = await self.until(name, lambda tree: found(tree) is not None)
        node = found(tree)
        assert node is not None
        return node

    async def press(self, node: Node) -> None:
        """Do what an object does first: press a button, say."""
        await self.call(node.owner, node.path, "org.a11y.atspi.Action", "DoAction", 0, signature="i")


async def reader(session_address: str) -> Reader:
    """Join the accessibility bus that belongs to a session bus; it is started by being asked for."""
    session = await MessageBus(session_address, bus_type=BusType.SESSION).connect()
    try:
        answer = await session.call(Message("org.a11y.Bus", "/org/a11y/bus", "org.a11y.Bus", "GetAddress"))
        assert answer is not None
        assert answer.message_type is MessageType.METHOD_RETURN, answer.body
        return Reader(await MessageBus(answer.body[0], bus_type=BusType.SESSION).connect())
    finally:
        session.disconnect()
