"""
Files, as ``/v1/files`` gives them.

Sources: platform.kimi.ai/docs/api/files (purposes, limits) and replies of the
live API (field values).
"""

from typing import ClassVar, Literal, TypeAlias

from ._base import Reply, absent, wire

__all__ = ["FileDeleted", "FileList", "FileObject", "FilePurpose"]

FilePurpose: TypeAlias = Literal["file-extract", "image", "video", "batch"] | str
"""
What a file is for. The server names two more that it uses itself: ``batch_output`` and ``lambda``.
"""


@wire
class FileObject(Reply):
    """A file on the account. There is no hash of its content."""

    id: str
    bytes: int = 0
    """Size of the content."""
    created_at: int = 0
    """Unix time in seconds."""
    filename: str = ""
    object: str = "file"
    purpose: str = ""
    status: str = ""
    """``ready`` (image, video, batch), ``ok`` (text extracted), ``error`` (see `status_details`); others may come."""
    status_details: str | None = absent()
    file_type: str | None = absent()
    """Mime type, or a short name such as ``md``."""
    expires_at: int | None = absent()

    @property
    def ms_url(self) -> str:
        """
        The reference for ``image_url`` and ``video_url`` parts: ``ms://<id>``. Only for purposes ``image`` and ``video``.
        """
        return f"ms://{self.id}"


@wire
class FileList(Reply):
    """One page of ``GET /v1/files``. Only ``object`` and ``data`` are promised."""

    __children__: ClassVar[tuple[str, ...]] = ("data",)

    data: list[FileObject]
    object: str = "list"
    first_id: str | None = absent()
    last_id: str | None = absent()
    has_more: bool | None = absent()


@wire
class FileDeleted(Reply):
    """What ``DELETE /v1/files/{id}`` answers."""

    id: str
    deleted: bool = True
    object: str = "file"
