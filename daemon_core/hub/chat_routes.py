"""Chats and files over HTTP: for people the conversations, for an agent the one that its task belongs to."""

from __future__ import annotations

import sqlite3
from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import BodyPartReader, web

from daemon_core.hub import agents, attachments, delegating, dispatch, issues, service, waking
from daemon_core.hub.answering import (
    ACTOR,
    WORKSPACE,
    Api,
    answer,
    checked_id,
    decode,
    flag,
    for_anybody,
    for_member,
    for_person,
    number,
    path_id,
)
from daemon_core.hub.clock import rfc3339
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.rows import on_the_wire, wire_task
from daemon_core.hub.store import Tx
from daemon_core.hub.tokens import redact

HISTORY: Final = 30
HISTORY_LIMIT: Final = 50
_FIELD_BYTES: Final = 1024
_NAME_CHARS: Final = 255


class _Session(msgspec.Struct):
    agent_id: str = ""
    title: str | None = None
    status: str | None = None


class _Message(msgspec.Struct):
    content: str = ""
    attachment_ids: list[str] = []


class ChatApi(Api):
    """The handlers of chats and attachments."""

    def routes(self) -> list[web.RouteDef]:
        """Chats and files."""
        session, file = "/api/chat/sessions/{cid}", "/api/attachments/{aid}"
        return [
            web.get("/api/chat/history", self.history),
            web.get("/api/chat/thread", self.thread),
            web.get("/api/chat/sessions", self.list_sessions),
            web.post("/api/chat/sessions", self.create_session),
            web.get(session, self.get_session),
            web.patch(session, self.update_session),
            web.delete(session, self.delete_session),
            web.get(session + "/messages", self.list_messages),
            web.post(session + "/messages", self.say),
            web.get(session + "/pending-task", self.pending_task),
            web.post("/api/upload-file", self.upload),
            web.get(file, self.attachment),
            web.get(file + "/content", self.download),
            web.delete(file, self.delete_attachment),
        ]

    # --- what an agent reads --------------------------------------------------------------------------

    @for_member("failed to read chat history")
    async def history(self, request: web.Request) -> web.StreamResponse:
        return answer(await self._history(request))

    @for_member("failed to read chat thread")
    async def thread(self, request: web.Request) -> web.StreamResponse:
        """A conversation here is one thread."""
        said = await self._history(request)
        return answer({**said, "thread_id": said["chat_session_id"]})

    async def _history(self, request: web.Request) -> dict[str, object]:
        """What was said in the conversation of the task that asks, oldest first, the newest of it."""
        task = request[ACTOR].task
        if task is None:
            raise RefusedError(403, "chat history is only available from within an agent task")
        if task["kind"] != "chat":
            raise RefusedError(400, "this task is not a chat task")
        conversation_id = task["conversation_id"]
        if request.query.get("id", conversation_id) not in ("", conversation_id):
            raise RefusedError(404, "chat session not found")
        limit = number(request, "limit", HISTORY, most=HISTORY_LIMIT) or HISTORY
        before = request.query.get("before", "")

        def rule(tx: Tx) -> dict[str, object]:
            rows = tx.all(
                "SELECT * FROM chat_message WHERE conversation_id = ? AND no < ? ORDER BY no DESC LIMIT ?",
                (conversation_id, int(before) if before.isdecimal() and len(before) < 19 else 1 << 62, limit),
            )
            said = {
                "channel_type": "",
                "chat_session_id": conversation_id,
                "messages": [_message(tx, row) for row in reversed(rows)],
            }
            if len(rows) == limit:
                said["next_cursor"] = str(rows[-1]["no"])
            return said

        return await self.read(request, rule)

    # --- what people do -------------------------------------------------------------------------------

    @for_person("failed to list chat sessions")
    async def list_sessions(self, request: web.Request) -> web.StreamResponse:
        archived = flag(request, "all") or request.query.get("status") in ("all", "archived")
        where = request[WORKSPACE]

        def rule(tx: Tx) -> list[dict[str, object]]:
            rows = tx.all(
                "SELECT * FROM conversation WHERE kind = 'chat' AND workspace_id = ?"
                " AND (archived_at IS NULL OR ?) ORDER BY updated_at DESC LIMIT 500",
                (where, int(archived)),
            )
            return [_session(row) for row in rows]

        return answer(await self.read(request, rule))

    @for_person("failed to create chat session")
    async def create_session(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Session, self.limits.body_bytes)
        agent_id, scope = checked_id(body.agent_id, "agent_id"), self.scope(request)

        def rule(tx: Tx) -> dict[str, object]:
            agent = agents.by_id(tx, agent_id)
            home = dispatch.chat_home(tx, scope, agent, (body.title or "").strip() or "New chat")
            return _session(_chat(tx, scope, home))

        return answer(await self.write(request, rule), 201)

    @for_person("failed to load chat session")
    async def get_session(self, request: web.Request) -> web.StreamResponse:
        conversation_id, scope = path_id(request, "cid", "session_id"), self.scope(request)
        return answer(await self.read(request, lambda tx: _session(_chat(tx, scope, conversation_id))))

    @for_person("failed to update chat session")
    async def update_session(self, request: web.Request) -> web.StreamResponse:
        conversation_id, scope = path_id(request, "cid", "session_id"), self.scope(request)
        body = await decode(request, _Session, self.limits.body_bytes)
        if body.status not in (None, "active", "archived"):
            raise RefusedError(400, "invalid status")

        def rule(tx: Tx) -> dict[str, object]:
            row = _chat(tx, scope, conversation_id)
            archived_at = row["archived_at"]
            if body.status is not None:
                archived_at = tx.now if body.status == "archived" else None
            title = row["title"] if not (body.title or "").strip() else service.title_of(body.title or "")
            tx.run(
                "UPDATE conversation SET title = ?, archived_at = ?, updated_at = ? WHERE id = ?",
                (title, archived_at, tx.now, conversation_id),
            )
            return _session(_chat(tx, scope, conversation_id))

        return answer(await self.write(request, rule))

    @for_person("failed to delete chat session")
    async def delete_session(self, request: web.Request) -> web.StreamResponse:
        conversation_id, scope = path_id(request, "cid", "session_id"), self.scope(request)

        def rule(tx: Tx) -> None:
            delegating.delete_conversation(tx, _chat(tx, scope, conversation_id)["id"])

        await self.write(request, rule)
        return web.Response(status=204)

    @for_person("failed to list chat messages")
    async def list_messages(self, request: web.Request) -> web.StreamResponse:
        conversation_id, scope = path_id(request, "cid", "session_id"), self.scope(request)

        def rule(tx: Tx) -> list[dict[str, object]]:
            _chat(tx, scope, conversation_id)
            rows = tx.all(
                "SELECT * FROM chat_message WHERE conversation_id = ? ORDER BY no", (conversation_id,)
            )
            return [_message(tx, row) for row in rows]

        return answer(await self.read(request, rule))

    @for_person("failed to send chat message")
    async def say(self, request: web.Request) -> web.StreamResponse:
        conversation_id, scope = path_id(request, "cid", "session_id"), self.scope(request)
        body = await decode(request, _Message, self.limits.large_body_bytes)
        if not body.content.strip():
            raise RefusedError(400, "content is required")
        files = [checked_id(each, "attachment_ids") for each in body.attachment_ids]

        def rule(tx: Tx) -> dict[str, object]:
            _chat(tx, scope, conversation_id)
            service.check_prompt(body.content, self.limits)
            waking.give_way(tx, conversation_id)
            about = {"initiator_type": "member", "initiator_id": scope.member_id}
            task = service.new_turn(tx, scope, conversation_id, body.content, fresh=False, about=about)
            attachments.link(tx, files, conversation_id=conversation_id, task_id=task.id)
            said = tx.one("SELECT no, created_at FROM chat_message WHERE task_id = ?", (task.id,))
            assert said is not None
            return {
                "message_id": str(said["no"]),
                "task_id": task.id,
                "created_at": rfc3339(said["created_at"]),
            }

        return answer(await self.write(request, rule), 201)

    @for_person("failed to load task")
    async def pending_task(self, request: web.Request) -> web.StreamResponse:
        conversation_id, scope = path_id(request, "cid", "session_id"), self.scope(request)

        def rule(tx: Tx) -> dict[str, object] | None:
            _chat(tx, scope, conversation_id)
            row = tx.one(
                "SELECT * FROM task WHERE conversation_id = ? AND status NOT IN"
                " ('completed', 'failed', 'cancelled') ORDER BY no LIMIT 1",
                (conversation_id,),
            )
            return None if row is None else on_the_wire(wire_task(row, scope.workspace_id))

        return answer({"task": await self.read(request, rule)})

    # --- files ----------------------------------------------------------------------------------------

    @for_member("failed to upload file")
    async def upload(self, request: web.Request) -> web.StreamResponse:
        """A form with the field ``file``, and perhaps one that says what it belongs to."""
        actor = request[ACTOR]
        if not request.content_type.startswith("multipart/"):
            raise RefusedError(400, "invalid multipart form")
        name, kind, content = "", "", None
        owner: dict[str, str] = {}
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    continue
                if part.name == "file":
                    name, kind = part.filename or "", part.headers.get("Content-Type", "")
                    content = await _limited(part, self.limits.attachment_bytes)
                elif part.name in ("issue_id", "comment_id", "chat_session_id"):
                    owner[part.name] = (await _limited(part, _FIELD_BYTES)).decode("utf-8", "replace").strip()
        except (ValueError, AssertionError) as error:
            raise RefusedError(400, "invalid multipart form") from error
        if content is None:
            raise RefusedError(400, "file is required")
        kept, filename = redact(content), _plain_name(name)
        content_type = kind or "application/octet-stream"

        def rule(tx: Tx) -> dict[str, object]:
            columns: dict[str, str | None] = {}
            if owner.get("issue_id"):
                columns["issue_id"] = issues.require(tx, owner["issue_id"])["id"]
            if owner.get("comment_id"):
                columns["comment_id"] = checked_id(owner["comment_id"], "comment_id")
            if owner.get("chat_session_id"):
                columns["conversation_id"] = checked_id(owner["chat_session_id"], "chat_session_id")
            row = attachments.add(tx, (actor.type, actor.id), filename, content_type, kept, **columns)
            return attachments.view(row, tx.now)

        return answer(_absolute(request, await self.write(request, rule)))

    @for_member("failed to load attachment")
    async def attachment(self, request: web.Request) -> web.StreamResponse:
        attachment_id = path_id(request, "aid", "attachment_id")
        view = await self.read(
            request, lambda tx: attachments.view(attachments.require(tx, attachment_id), tx.now)
        )
        return answer(_absolute(request, view))

    @for_anybody("failed to load attachment")
    async def download(self, request: web.Request) -> web.StreamResponse:
        """A file's content, for whoever has a token or an address that was signed here."""
        attachment_id = path_id(request, "aid", "attachment_id")
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        valid = await self.hub.store.read(
            lambda tx: attachments.signed(attachment_id, expires, signature, tx.now)
        )
        if not valid:
            await self.authorize_member(request)
            await self.read(request, lambda tx: attachments.require(tx, attachment_id))
        row, content = await self.hub.store.read(lambda tx: attachments.content(tx, attachment_id))
        return web.Response(
            body=content,
            headers={
                "Content-Type": row["content_type"],
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row['filename'], safe='')}",
                "X-Content-Type-Options": "nosniff",
            },
        )

    @for_member("failed to delete attachment")
    async def delete_attachment(self, request: web.Request) -> web.StreamResponse:
        attachment_id = path_id(request, "aid", "attachment_id")
        actor = request[ACTOR]

        def rule(tx: Tx) -> None:
            row = attachments.require(tx, attachment_id)
            if actor.type != "member" and row["uploader_id"] != actor.id:
                raise RefusedError(403, "not the uploader of this file")
            attachments.delete(tx, attachment_id)

        await self.write(request, rule)
        return web.Response(status=204)


def _chat(tx: Tx, scope: service.Scope, conversation_id: str) -> sqlite3.Row:
    row = tx.one(
        "SELECT * FROM conversation WHERE id = ? AND kind = 'chat' AND workspace_id = ?",
        (conversation_id, scope.workspace_id),
    )
    if row is None:
        raise RefusedError(404, "chat session not found")
    return row


def _session(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "workspace_id": row["workspace_id"],
        "agent_id": row["agent_id"],
        "title": row["title"],
        "status": "active" if row["archived_at"] is None else "archived",
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def _message(tx: Tx, row: sqlite3.Row) -> dict[str, object]:
    at = rfc3339(row["created_at"])
    files = attachments.of(tx, "task_id", row["turn_id"]) if row["role"] == "user" else []
    return {
        "id": str(row["no"]),
        "role": row["role"],
        "author": "User" if row["role"] == "user" else "Bot",
        "text": row["content"],
        "content": row["content"],
        "ts": at,
        "created_at": at,
        "task_id": row["task_id"],
        "attachments": files,
    }


def _absolute(request: web.Request, view: dict[str, object]) -> dict[str, object]:
    """With whole addresses, as whoever asks can reach them."""
    server = f"{request.scheme}://{request.host}"
    return {**view, "url": f"{server}{view['url']}", "download_url": f"{server}{view['download_url']}"}


async def _limited(part: BodyPartReader, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await part.read_chunk():
        size += len(chunk)
        if size > limit:
            raise RefusedError(413, "file too large")
        chunks.append(chunk)
    return b"".join(chunks)


def _plain_name(given: str) -> str:
    name = given.replace("\\", "/").rpartition("/")[2].strip()
    name = "".join(char for char in name if char.isprintable())[:_NAME_CHARS]
    return name if name not in ("", ".", "..") else "file"
