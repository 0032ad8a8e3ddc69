"""Resolving a model brings what a spec names to this node, and says which bytes they are.

Invariant: what is served has the digest that was asked for, where one was; a download is complete or is not there; and
nothing outside the run's folder, the node's packages and the place that was named is read.
"""

import contextlib
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseai.ground.fault import Fault
from baseai.workloads.inference.engine import ModelUnusable
from baseai.workloads.model import ModelSource, model_source_of

READERS = 4  # files of a large model that are read at once
HUB_DOWN = (
    "models of a hub can only be had where the node reaches it; bring it with `files`, or write an s3:// URI"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A model on this node."""

    path: str  # a file or folder; of a callable `file.py:name`
    digest: str  # sha256, hexadecimal: of the file, or of the folder as `digest_of` has it
    size_bytes: int


class SourceAway(Fault):
    """The place that a model comes from cannot be reached now."""

    retryable = True

    def __init__(self, model: str, why: str) -> None:
        super().__init__(model, why)
        self.model = model
        self.why = why

    def __str__(self) -> str:
        return f"model {self.model}: {self.why}"


def resolve(
    written: str,
    *,
    work_folder: Path,
    model_path: str | None,
    downloads: Path,
    checkpoints: Mapping[str, Any] | None = None,
) -> Resolved:
    """Bring the model of a spec to this node.

    model_path: what the run of `run:NAME` made; `checkpoints` where it has only these: folder, recipe and config.
    downloads: a folder for what is fetched, made when needed.
    Raises ModelUnusable where the model cannot be had as it is written, SourceAway where it may be had later.
    """
    source = model_source_of(written)
    if source.kind == "run":
        if model_path is None and checkpoints is not None:
            model_path = str(_exported(source, written, checkpoints, downloads))
        path = _of_run(source, written, model_path)
    else:
        path = _located(source, written, work_folder=work_folder, downloads=downloads)
    digest = digest_of(path)
    if source.sha256 is not None and source.sha256 != digest:
        fix = "write the digest of the model that you mean, or bring that model"
        raise ModelUnusable(written, f"has the digest {digest}, which is another than was asked for", fix)
    served = f"{path}:{source.inside}" if source.kind == "python" else str(path)
    return Resolved(path=served, digest=digest, size_bytes=_size_bytes(path))


def digest_of(path: Path) -> str:
    """sha256 of a file; of a folder that of the names and digests of all its files, in the order of their names."""
    if path.is_file():
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    files = _files(path)
    with ThreadPoolExecutor(READERS) as readers:  # the digest of a file leaves Python to the others
        for each, digest in zip(files, readers.map(digest_of, files), strict=True):
            whole.update(f"{each.relative_to(path).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()


def _files(folder: Path) -> list[Path]:
    """All of them, save what a hub's own tools keep beside a download."""
    found = (each for each in folder.rglob("*") if each.is_file())
    return sorted(each for each in found if ".cache" not in each.relative_to(folder).parts)


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(each.stat().st_size for each in _files(path))


def _located(source: ModelSource, written: str, *, work_folder: Path, downloads: Path) -> Path:
    match source.kind:
        case "pkg":
            return _of_package(source, written)
        case "s3":
            return _of_bucket(source, written, downloads)
        case "hf":
            return _of_hub(source, written)
        case _:
            return _of_path(source, written, work_folder)


def _of_path(source: ModelSource, written: str, work_folder: Path) -> Path:
    path = work_folder / source.place  # an absolute path stays what it is
    if not path.exists():
        where = "on this node" if source.place.startswith("/") else "in the run's folder"
        fix = "bring it with `files`, and write the path that it has there"
        raise ModelUnusable(written, f"there is no {source.place} {where}", fix)
    return path


def _of_run(source: ModelSource, written: str, model_path: str | None) -> Path:
    if model_path is None:
        fix = "name a run of this project that has ended well, see `baseai ps`"
        raise ModelUnusable(written, f"the run {source.place} has made no model yet", fix)
    path = Path(model_path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        fix = "files of runs must lie on storage that all nodes share, or the service must run on that node"
        raise ModelUnusable(written, f"{model_path} of the run {source.place} is not on this node", fix)
    if source.inside is not None:
        path /= source.inside
        if not path.exists():
            fix = f"it made {', '.join(_some_of(Path(model_path)))}"
            raise ModelUnusable(written, f"the run {source.place} made no {source.inside}", fix)
    return path


def _exported(source: ModelSource, written: str, checkpoints: Mapping[str, Any], downloads: Path) -> Path:
    """The newest checkpoint of a run that goes on, in the form that others load. Training does that, by itself."""
    target = downloads / "checkpoint"
    if target.exists():
        return target
    downloads.mkdir(parents=True, exist_ok=True)
    order = downloads / "export.json"
    order.write_text(json.dumps({**checkpoints, "target": str(target)}))
    command = [sys.executable, "-m", "baseai.workloads.training.export", str(order)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        problem = (
            f"no model could be made of the run {source.place}: {lines[-1] if lines else ended.returncode}"
        )
        raise ModelUnusable(written, problem, "wait until it has saved a checkpoint, or name another run")
    return target


def _of_package(source: ModelSource, written: str) -> Path:
    assert source.inside is not None
    try:
        found = importlib.util.find_spec(source.place)
    except ImportError:
        found = None
    if found is None or not (found.submodule_search_locations or found.origin):
        fix = f"have the node's operator install the package that brings it into {sys.executable}"
        raise ModelUnusable(written, f"this node has no Python package {source.place}", fix)
    roots = list(found.submodule_search_locations or [str(Path(found.origin or "").parent)])
    for root in roots:
        path = Path(root) / source.inside
        if path.exists():
            return path
    fix = f"the package has {', '.join(_some_of(Path(roots[0])))}"
    raise ModelUnusable(written, f"there is no {source.inside} in the package {source.place}", fix)


def _some_of(folder: Path) -> list[str]:
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith(("_", ".")))
    return [*names[:8], "…"] if len(names) > 8 else names or ["nothing"]


def _of_bucket(source: ModelSource, written: str, downloads: Path) -> Path:
    """The object or folder below the URI, fetched once. The bucket's key and endpoint come as secrets (AWS_…)."""
    try:
        import fsspec

        store, place = fsspec.core.url_to_fs(source.place)
    except ImportError as missing:
        fix = f"have the node's operator install {missing.name or 's3fs'} beside baseai"
        raise ModelUnusable(written, "this node cannot read s3://", fix) from missing
    target = downloads / hashlib.sha256(source.place.encode()).hexdigest()[:16] / Path(place).name
    if target.exists():
        return target
    fresh = target.with_name(target.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(fresh) if fresh.is_dir() else fresh.unlink()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if store.isdir(place):
            store.get(place.rstrip("/") + "/", str(fresh), recursive=True)
        else:
            store.get_file(place, str(fresh))
    except FileNotFoundError as missing:
        fix = "see that the URI is right and the run's secrets may read it"
        raise ModelUnusable(written, "there is no such object", fix) from missing
    except PermissionError as refused:
        fix = "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as `secrets` that may read it"
        raise ModelUnusable(written, f"may not be read: {refused}", fix) from refused
    except Exception as wrong:
        raise SourceAway(written, f"could not be fetched: {type(wrong).__name__}: {wrong}") from wrong
    fresh.rename(target)
    return target


def _of_hub(source: ModelSource, written: str) -> Path:
    """A snapshot of the repository, in the hub's own cache on this node."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as missing:
        fix = "have the node's operator install baseai[serve]"
        raise ModelUnusable(written, "this node has no huggingface_hub", fix) from missing
    try:
        return Path(snapshot_download(source.place, revision=source.revision))
    except GatedRepoError as refused:
        fix = "accept its terms there, and give HF_TOKEN as a secret"
        raise ModelUnusable(written, "is only given to who may have it", fix) from refused
    except (RepositoryNotFoundError, RevisionNotFoundError) as missing:
        raise ModelUnusable(
            written, "there is no such repository or revision", "see its name on the hub"
        ) from missing
    except Exception as wrong:
        raise SourceAway(
            written, f"the hub cannot be reached ({type(wrong).__name__}); {HUB_DOWN}"
        ) from wrong
