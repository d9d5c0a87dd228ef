"""What an agent is told of a job: plain sentences with the facts, and the end of the output."""

from __future__ import annotations

from typing import Final

from daemon_core.jobs.output import Digest
from daemon_core.jobs.stalls import Prompt
from daemon_core.jobs.store import JobNotice, JobRecord

NAME_LIMIT_CHARS: Final = 200


def ended_notice(job: JobRecord, output: Digest, output_path: str, errors: Digest | None) -> JobNotice | None:
    """The notice of an end; None for one that tells nobody."""
    if job.status == "killed":
        return None
    timed_out = job.status == "timed_out"
    lines = [f"Your background job {_title(job)} {_how(job)}."]
    if job.error:
        lines.append(f"{job.error[:1].upper()}{job.error[1:]}.")
    lines += _shown(job, output, output_path, "Its output")
    if errors is not None and errors.size:
        lines += _shown(job, errors, "", "Its standard error")
    kind = "job_timed_out" if timed_out else "job_ended"
    # One notice for the end, whatever it was: the text names the job alone.
    return JobNotice(kind=kind, body="\n".join(lines), dedup=f"job_end:{job.id}", wake=job.wake)


def stalled_notice(
    job: JobRecord, prompt: Prompt, tail: str, output_path: str, number: int, silent_s: float
) -> JobNotice:
    """The notice that a job seems to wait for input; it does not take the place of that of its end."""
    advice = prompt.advice.replace("{id}", job.id[:8])
    body = "\n".join(
        [
            f"Your background job {_title(job)} has said nothing for {silent_s:.0f} s and seems to wait for"
            " input. It goes on running.",
            f"{advice}.",
            f"The end of its output ({output_path}):",
            _fenced(tail),
        ]
    )
    return JobNotice(kind="job_stalled", body=body, dedup=f"job_stalled:{job.id}:{number}", wake=job.wake)


def _title(job: JobRecord) -> str:
    what = " ".join((job.name or job.command).split())
    if len(what) > NAME_LIMIT_CHARS:
        what = what[: NAME_LIMIT_CHARS - 1] + "…"
    return f"{job.id[:8]} ({what})"


def _how(job: JobRecord) -> str:
    match job.status:
        case "done":
            return "is done: exit code 0"
        case "failed" if job.signal is not None:
            return f"has failed: it was ended by signal {job.signal}"
        case "failed" if job.exit_code is not None:
            return f"has failed: exit code {job.exit_code}"
        case "failed":
            return "could not be started"
        case "timed_out":
            return f"was ended at its time limit of {job.time_limit_s:.0f} s"
        case "lost":
            return (
                "is lost: what supervised it was ended from outside, and how the command ended is not known"
            )
        case other:
            return f"is {other}"


def _shown(job: JobRecord, output: Digest, path: str, what: str) -> list[str]:
    if not output.size:
        return [f"{what} is empty."]
    place = f", in {path}" if path else ""
    what_part = "any part of it" if output.gap is None else "any part that is left"
    more = f"; `ostler job output {job.id[:8]} --offset N` reads {what_part}" if output.shortened else ""
    return [f"{what} ({output.size:,} bytes{place}{more}):", _fenced(output.text)]


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"
