"""Issues, their comments, notes and runs, over HTTP. An issue is named by its id or its key (``LOC-12``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from daemon_core.hub import attachments, comments, delegating, dispatch, issues, places, service, squads
from daemon_core.hub.answering import (
    ACTOR,
    WORKSPACE,
    Actor,
    Api,
    answer,
    checked_id,
    decode,
    flag,
    for_member,
    path_id,
)
from daemon_core.hub.answering import number as query_number
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.rows import on_the_wire, wire_task
from daemon_core.hub.sending import send_messages
from daemon_core.hub.store import Tx

_PAGE = 50
_PAGE_LIMIT = 500
_FILTERS = ("status", "priority", "assignee_id", "assignee_type", "project_id", "creator_id")


class _Comment(msgspec.Struct):
    content: str = ""
    type: str = "comment"
    parent_id: str | None = None
    attachment_ids: list[str] = []


class _Note(msgspec.Struct):
    value: Any = None


class _Evaluation(msgspec.Struct):
    outcome: str = ""
    reason: str = ""


class _Rerun(msgspec.Struct):
    task_id: str | None = None


class IssueApi(Api):
    """The handlers of issues and of the tasks that agents see."""

    def routes(self) -> list[web.RouteDef]:
        """Issues, comments, notes, runs."""
        issue, comment = "/api/issues/{issue}", "/api/comments/{comment}"
        return [
            web.get("/api/issues", self.list_issues),
            web.post("/api/issues", self.create),
            web.get("/api/issues/search", self.search),
            web.post("/api/issues/quick-create", self.quick_create),
            web.get(issue, self.get),
            web.put(issue, self.update),
            web.delete(issue, self.delete),
            web.get(issue + "/children", self.children),
            web.get(issue + "/comments", self.list_comments),
            web.post(issue + "/comments", self.comment),
            web.get(issue + "/attachments", self.list_attachments),
            web.get(issue + "/metadata", self.notes),
            web.put(issue + "/metadata/{key}", self.set_note),
            web.delete(issue + "/metadata/{key}", self.delete_note),
            web.post(issue + "/squad-evaluated", self.evaluated),
            web.get(issue + "/task-runs", self.runs),
            web.post(issue + "/tasks/{tid}/cancel", self.cancel_on_issue),
            web.post(issue + "/rerun", self.rerun),
            web.put(comment, self.edit_comment),
            web.delete(comment, self.delete_comment),
            web.post(comment + "/resolve", self.resolve),
            web.delete(comment + "/resolve", self.unresolve),
            web.get("/api/tasks/{tid}/messages", self.task_messages),
            web.post("/api/tasks/{tid}/cancel", self.cancel),
        ]

    # --- issues ---------------------------------------------------------------------------------------

    def _shown(self, tx: Tx, row: sqlite3.Row, *, whole: bool = True) -> dict[str, object]:
        return issues.view(tx, row, tx.place or self.hub.workspace_id, whole=whole)

    def _listed(self, tx: Tx, rows: list[sqlite3.Row]) -> list[dict[str, object]]:
        return [self._shown(tx, row, whole=False) for row in rows]

    @for_member("failed to list issues")
    async def list_issues(self, request: web.Request) -> web.StreamResponse:
        filters = {name: request.query[name] for name in _FILTERS if request.query.get(name)}
        limit = query_number(request, "limit", _PAGE, most=_PAGE_LIMIT)
        offset = query_number(request, "offset", 0)

        def rule(tx: Tx) -> dict[str, object]:
            rows, total = issues.search(tx, filters, limit=limit, offset=offset)
            return {"issues": self._listed(tx, rows), "total": total}

        return answer(await self.read(request, rule))

    @for_member("failed to search issues")
    async def search(self, request: web.Request) -> web.StreamResponse:
        text = request.query.get("q", "").strip()
        if not text:
            raise RefusedError(400, "q is required")
        limit = query_number(request, "limit", _PAGE, most=_PAGE_LIMIT)
        closed = flag(request, "include_closed")

        def rule(tx: Tx) -> dict[str, object]:
            rows, total = issues.search(tx, {}, text=text, limit=limit, closed=closed)
            return {"issues": self._listed(tx, rows), "total": total}

        return answer(await self.read(request, rule))

    @for_member("failed to load issue")
    async def get(self, request: web.Request) -> web.StreamResponse:
        return answer(await self.read(request, lambda tx: self._shown(tx, self._issue(tx, request))))

    @for_member("failed to load issue")
    async def children(self, request: web.Request) -> web.StreamResponse:
        def rule(tx: Tx) -> dict[str, object]:
            rows = issues.children(tx, self._issue(tx, request)["id"])
            return {"issues": self._listed(tx, rows), "total": len(rows)}

        return answer(await self.read(request, rule))

    @for_member("failed to create issue")
    async def create(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, issues.IssueBody, self.limits.large_body_bytes)
        actor = request[ACTOR]
        _check_ids(body.attachment_ids, "attachment_ids")
        if body.origin_type == "quick_create" and actor.task is not None:
            body.origin_id = actor.task["id"]
        scope = self.scope(request)

        def rule(tx: Tx) -> dict[str, object]:
            row = issues.create(tx, body, _who(actor))
            dispatch.issue_created(tx, scope, row, _who(actor), body.handoff_note)
            return self._shown(tx, row)

        return answer(await self.write(request, rule), 201)

    @for_member("failed to update issue")
    async def update(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, issues.IssueBody, self.limits.large_body_bytes)
        actor, scope = request[ACTOR], self.scope(request)
        _check_ids(body.attachment_ids, "attachment_ids")

        def rule(tx: Tx) -> dict[str, object]:
            before = self._issue(tx, request)
            after = issues.update(tx, before, body)
            acting = None if actor.task is None else actor.task["id"]
            dispatch.issue_changed(tx, scope, before, after, _who(actor), body.handoff_note, acting)
            return self._shown(tx, after)

        return answer(await self.write(request, rule))

    @for_member("failed to delete issue")
    async def delete(self, request: web.Request) -> web.StreamResponse:
        self.member_only(request)
        await self.write(request, lambda tx: dispatch.delete_issue(tx, self._issue(tx, request)))
        return web.Response(status=204)

    @for_member("failed to create task")
    async def quick_create(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, dispatch.QuickCreate, self.limits.body_bytes)
        _check_ids(body.attachment_ids, "attachment_ids")
        actor, scope = request[ACTOR], self.scope(request)
        task = await self.write(request, lambda tx: dispatch.quick_create(tx, scope, body, _who(actor)))
        return answer({"task_id": task.id}, 202)

    @for_member("failed to list attachments")
    async def list_attachments(self, request: web.Request) -> web.StreamResponse:
        return answer(
            await self.read(
                request, lambda tx: attachments.of(tx, "issue_id", self._issue(tx, request)["id"])
            )
        )

    def _issue(self, tx: Tx, request: web.Request) -> sqlite3.Row:
        return issues.require(tx, request.match_info["issue"])

    # --- comments -------------------------------------------------------------------------------------

    @for_member("failed to list comments")
    async def list_comments(self, request: web.Request) -> web.StreamResponse:
        choice = _choice(request)

        def rule(tx: Tx) -> comments.Page:
            row = self._issue(tx, request)
            return comments.listing(tx, row["id"], choice, issues.names(tx, self.hub.scope.member_id))

        page = await self.read(request, rule)
        headers = {}
        if page.next_before is not None and page.next_before_id is not None:
            headers["X-Multica-Next-Before"] = page.next_before
            headers["X-Multica-Next-Before-Id"] = page.next_before_id
        return answer(page.comments, headers=headers)

    @for_member("failed to create comment")
    async def comment(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Comment, self.limits.large_body_bytes)
        if not body.content.strip():
            raise RefusedError(400, "content is required")
        parent_id = checked_id(body.parent_id, "parent_id") if body.parent_id else None
        _check_ids(body.attachment_ids, "attachment_ids")
        actor, scope = request[ACTOR], self.scope(request)

        def rule(tx: Tx) -> dict[str, object]:
            issue = self._issue(tx, request)
            parent = None
            if parent_id is not None:
                parent = tx.one("SELECT * FROM comment WHERE id = ?", (parent_id,))
                if parent is None or parent["issue_id"] != issue["id"]:
                    raise RefusedError(400, "invalid parent comment")
            _check_place(actor, issue, parent_id)
            written = comments.insert(
                tx,
                issue["id"],
                _who(actor),
                body.content,
                parent=parent,
                task_id=None if actor.task is None else actor.task["id"],
            )
            attachments.link(tx, body.attachment_ids, comment_id=written["id"], issue_id=issue["id"])
            dispatch.commented(tx, scope, issue, written, _who(actor))
            return self._comment_view(tx, written)

        return answer(await self.write(request, rule), 201)

    @for_member("failed to update comment")
    async def edit_comment(self, request: web.Request) -> web.StreamResponse:
        comment_id = path_id(request, "comment", "comment_id")
        body = await decode(request, _Comment, self.limits.large_body_bytes)
        if not body.content.strip():
            raise RefusedError(400, "content is required")
        actor = request[ACTOR]

        def rule(tx: Tx) -> dict[str, object]:
            _check_author(actor, comments.require(tx, comment_id))
            return self._comment_view(tx, comments.edit(tx, comment_id, body.content))

        return answer(await self.write(request, rule))

    @for_member("failed to delete comment")
    async def delete_comment(self, request: web.Request) -> web.StreamResponse:
        comment_id = path_id(request, "comment", "comment_id")
        actor = request[ACTOR]

        def rule(tx: Tx) -> None:
            _check_author(actor, comments.require(tx, comment_id))
            for gone in comments.delete(tx, comment_id):
                for row in tx.all(
                    "SELECT id FROM task WHERE trigger_comment_id = ? AND status = 'queued'", (gone,)
                ):
                    service.cancel(tx, row["id"])

        await self.write(request, rule)
        return web.Response(status=204)

    @for_member("failed to resolve comment")
    async def resolve(self, request: web.Request) -> web.StreamResponse:
        return await self._settle(request, _who(request[ACTOR]))

    @for_member("failed to resolve comment")
    async def unresolve(self, request: web.Request) -> web.StreamResponse:
        return await self._settle(request, None)

    async def _settle(self, request: web.Request, by: tuple[str, str] | None) -> web.Response:
        comment_id = path_id(request, "comment", "comment_id")
        return answer(
            await self.write(request, lambda tx: self._comment_view(tx, comments.resolve(tx, comment_id, by)))
        )

    def _comment_view(self, tx: Tx, row: sqlite3.Row) -> dict[str, object]:
        return comments.view(tx, row, issues.names(tx, self.hub.scope.member_id))

    # --- notes and decisions --------------------------------------------------------------------------

    @for_member("failed to load issue metadata")
    async def notes(self, request: web.Request) -> web.StreamResponse:
        row = await self.read(request, lambda tx: self._issue(tx, request))
        return answer({"metadata": msgspec.json.decode(row["metadata"])})

    @for_member("failed to set metadata key")
    async def set_note(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Note, self.limits.body_bytes)
        key = request.match_info["key"]
        notes = await self.write(
            request, lambda tx: issues.set_note(tx, self._issue(tx, request), key, body.value)
        )
        return answer({"metadata": notes})

    @for_member("failed to delete metadata key")
    async def delete_note(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        notes = await self.write(request, lambda tx: issues.delete_note(tx, self._issue(tx, request), key))
        return answer({"metadata": notes})

    @for_member("failed to record evaluation")
    async def evaluated(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Evaluation, self.limits.body_bytes)
        task = request[ACTOR].task
        await self.write(
            request, lambda tx: squads.evaluate(tx, self._issue(tx, request), task, body.outcome, body.reason)
        )
        return answer({"outcome": body.outcome, "reason": body.reason})

    # --- runs -----------------------------------------------------------------------------------------

    @for_member("failed to list tasks")
    async def runs(self, request: web.Request) -> web.StreamResponse:
        where = request[WORKSPACE]

        def rule(tx: Tx) -> list[dict[str, object]]:
            issue = self._issue(tx, request)
            rows = tx.all("SELECT * FROM task WHERE issue_id = ? ORDER BY no DESC", (issue["id"],))
            return [on_the_wire(wire_task(row, where)) for row in rows]

        return answer(await self.read(request, rule))

    @for_member("failed to rerun issue")
    async def rerun(self, request: web.Request) -> web.StreamResponse:
        body = await decode(request, _Rerun, self.limits.body_bytes)
        task_id = checked_id(body.task_id, "task_id") if body.task_id else None
        actor, scope = request[ACTOR], self.scope(request)

        def rule(tx: Tx) -> sqlite3.Row:
            issue = self._issue(tx, request)
            made = dispatch.rerun(tx, scope, issue, task_id, _who(actor))
            return service.task_row(tx, made.id)

        return await self._task(request, rule, 202)

    @for_member("failed to cancel task")
    async def cancel_on_issue(self, request: web.Request) -> web.StreamResponse:
        task_id = path_id(request, "tid", "task_id")

        def rule(tx: Tx) -> sqlite3.Row:
            if service.task_row(tx, task_id)["issue_id"] != self._issue(tx, request)["id"]:
                raise RefusedError(404, "task not found")
            return delegating.cancel_task(tx, task_id)

        await self._own_task(request)
        return await self._task(request, rule)

    @for_member("failed to cancel task")
    async def cancel(self, request: web.Request) -> web.StreamResponse:
        task_id = await self._own_task(request)
        return await self._task(request, lambda tx: delegating.cancel_task(tx, task_id))

    @for_member("failed to load task messages")
    async def task_messages(self, request: web.Request) -> web.StreamResponse:
        return await send_messages(self.hub, request, await self._own_task(request))

    async def _own_task(self, request: web.Request) -> str:
        """The task of the path. An agent sees what is on issues, and else its own conversation alone."""
        task_id = path_id(request, "tid", "task_id")
        mine, where = request[ACTOR].task, request[WORKSPACE]

        def rule(tx: Tx) -> bool:
            row = service.task_row(tx, task_id)
            if places.workspace_of(tx, row["conversation_id"]) != where:
                return False
            if mine is None or row["issue_id"] is not None:
                return True
            return bool(mine["conversation_id"] == row["conversation_id"])

        if not await self.read(request, rule):
            raise RefusedError(404, "not found")
        return task_id

    async def _task(
        self, request: web.Request, rule: Callable[[Tx], sqlite3.Row], status: int = 200
    ) -> web.Response:
        row = await self.write(request, rule)
        return answer(on_the_wire(wire_task(row, request[WORKSPACE])), status)


def _who(actor: Actor) -> tuple[str, str]:
    return actor.type, actor.id


def _check_ids(given: list[str] | None, name: str) -> None:
    for each in given or ():
        checked_id(each, name)


def _check_author(actor: Actor, comment: sqlite3.Row) -> None:
    """An agent may change what it has written itself; the user anything."""
    if actor.type != "member" and (comment["author_type"], comment["author_id"]) != _who(actor):
        raise RefusedError(403, "not the author of this comment")


def _check_place(actor: Actor, issue: sqlite3.Row, parent_id: str | None) -> None:
    """An agent answers where it was asked, and is silent where it has said that it will be.

    A session that is taken up again remembers an earlier question; its answer would land below that.
    """
    task = actor.task
    if task is None or task["issue_id"] != issue["id"]:
        return
    trigger = task["trigger_comment_id"]
    if trigger is not None and parent_id != trigger:
        raise RefusedError(409, f"parent_id must equal this task's trigger comment id ({trigger})")
    if task["squad_outcome"] == "no_action":
        raise RefusedError(409, "this task has recorded that no action is needed")


def _choice(request: web.Request) -> comments.Choice:
    query = request.query
    since, before = query.get("since"), query.get("before")
    thread, before_id = query.get("thread"), query.get("before_id")
    return comments.Choice(
        since=comments.parse_time(since, "since") if since else None,
        thread=checked_id(thread, "thread") if thread else None,
        tail=query_number(request, "tail", 0),
        recent=query_number(request, "recent", 0),
        before=comments.parse_time(before, "before") if before else None,
        before_id=checked_id(before_id, "before_id") if before_id else None,
        roots_only=flag(request, "roots_only"),
        summary=flag(request, "summary"),
        fold=flag(request, "fold"),
    )
