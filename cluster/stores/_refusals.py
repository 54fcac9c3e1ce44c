"""What both engines say when they refuse a call that concerns a job."""

from __future__ import annotations

from cluster.errors import JobNotFound, JobStateError
from cluster.records import JOB_ENDED


def job_missing(job_id: str, group: str) -> JobNotFound:
    return JobNotFound(
        f"there is no job {job_id!r} in group {group!r}: it never was, or it was deleted, or its time to live is over"
    )


def id_taken(job_id: str, *, by_job: bool) -> JobStateError:
    what = "a job that is being deleted" if by_job else "a task"
    return JobStateError(f"{job_id!r} is the id of {what}; start the job with another one")


def illegal_change(job_id: str, old: str, new: str) -> JobStateError:
    if old in JOB_ENDED:
        what = f"job {job_id!r} has ended, it is {old}, and cannot be made {new}; start a new one"
    else:
        what = (
            f"job {job_id!r} is {old}, and is not made {new} from outside; "
            "it can be made running, paused, suspended or terminated"
        )
    return JobStateError(what, job_state=old)
