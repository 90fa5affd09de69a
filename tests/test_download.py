"""Downloads from a server that fails in every way, and data folders that cannot be used."""

import gc
import hashlib
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision import datasets

from data import cifar_n, download
from data.cifar import CIFAR, load_cifar
from data.cifar_n import fetch_label_file
from data.datasets import load_images
from data.download import fetch
from tests import lives
from tests.conftest import MadeUpCifar

# torch 2.6 leaves the connection of a download that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

CONTENT = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[[BaseHTTPRequestHandler], None]


def whole(request: BaseHTTPRequestHandler, content: bytes = CONTENT, sent: int | None = None):
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content[:sent])
    request.wfile.flush()


def stalled(request: BaseHTTPRequestHandler) -> None:
    whole(request, sent=1000)
    time.sleep(2)


def hung_up(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


def status(code: int) -> Answer:
    return lambda request: request.send_error(code)


class Server(ThreadingHTTPServer):
    """Gives its answers in turn, the last one for ever; `asked`: the paths of all requests."""

    daemon_threads = True

    def url(self, name: str = "file") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client has hung up, as expected."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: object) -> None:
        """No log."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02, 0.04))
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = [whole], []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
    gc.collect()


CUT_OFF, WRONG_BYTES = partial(whole, sent=len(CONTENT) // 2), partial(whole, content=CONTENT[::-1])
TEMPORARY = [CUT_OFF, stalled, hung_up, WRONG_BYTES, status(500), status(429)]


@pytest.mark.parametrize("failure", TEMPORARY)
def test_temporary_failures_are_retried(server: Server, failure: Answer, tmp_path: Path, capsys):
    server.answers = [failure, failure, whole]
    (tmp_path / f"file.{'0' * 32}.partial").write_bytes(CONTENT[:10])  # of a killed process
    (tmp_path / "other.partial").write_bytes(b"of another file")
    fetch(server.url(), tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT and len(server.asked) == 3
    assert {each.name for each in tmp_path.iterdir()} == {"file", "other.partial"}
    assert capsys.readouterr().out.count("; next attempt in ") == 2


@pytest.mark.parametrize(("failure", "attempts"), [*((f, 4) for f in TEMPORARY), (status(404), 1)])
def test_lasting_failures_are_explained(server: Server, failure: Answer, attempts: int, tmp_path):
    server.answers = [failure]
    with pytest.raises(OSError) as error:
        fetch(server.url(), tmp_path / "file", SHA256)
    message = str(error.value)
    assert "\n" not in message and len(server.asked) == attempts
    for part in (server.url(), SHA256, "as file into", str(tmp_path)):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "PAUSES", ())
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        monkeypatch.setattr(cifar_n, "URL", url)
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{url}cifar-10-python.tar.gz")
        for what, name, sha256 in (
            (fetch_label_file, "CIFAR-10_human.pt", cifar_n.LABEL_FILES["cifar10"].sha256[0]),
            (load_cifar, "cifar-10-python.tar.gz", "6d958be0"),
        ):
            with pytest.raises(OSError, match="Connection refused") as error:
                what("cifar10", tmp_path)
            for part in (url + name, sha256, str(tmp_path)):
                assert part in str(error.value)
    assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]


def test_a_full_disk_is_not_retried(server: Server, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "file.partial"))

    monkeypatch.setattr("torch.hub.download_url_to_file", full)
    monkeypatch.setattr(download.time, "sleep", lambda _: pytest.fail("waited for another attempt"))
    with pytest.raises(OSError, match="No space left on device"):
        fetch(server.url(), tmp_path / "file", SHA256)


def ask(url: str, folder: Path) -> None:
    cifar_n.URL = url
    cifar_n.LABEL_FILES["cifar10"] = cifar_n.LABEL_FILES["cifar10"]._replace(sha256=(SHA256,))
    fetch_label_file("cifar10", folder)


def test_several_processes_download_once(server: Server, tmp_path: Path):
    def slowly(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        whole(request)

    server.answers = [slowly]
    folder = tmp_path / "data"
    processes = [lives.CONTEXT.Process(target=ask, args=(server.url(""), folder)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.asked == ["/CIFAR-10_human.pt"]
    assert (folder / "CIFAR-10_human.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("read", [fetch_label_file, load_images])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file", "not a folder"),
        ("file/below", "not a folder"),
        ("x" * 300, "File name too long"),
        ("", "cannot be written to"),
        ("data", "Permission denied: {folder}/"),
    ],
)
def test_data_folders_of_no_use(read, place, reason, made_up_cifar, tmp_path, monkeypatch):
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(download.os, "access", lambda *_: False)  # the superuser may always write
    monkeypatch.setattr(download, "open", refuse, raising=False)
    monkeypatch.setattr(datasets.cifar, "open", refuse, raising=False)
    (tmp_path / "file").touch()
    (made_up_cifar.folder / "CIFAR-10_human.pt").touch()
    before, folder = sorted(tmp_path.rglob("*")), tmp_path / place
    with pytest.raises(OSError) as error:
        read("cifar10", folder)
    message = str(error.value)
    assert f"--data_dir {folder}" in message and reason.format(folder=folder) in message
    assert "\n" not in message and "Errno" not in message
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_files_are_restored_from_an_intact_archive(made_up_cifar: MadeUpCifar, monkeypatch):
    base = made_up_cifar.folder / datasets.CIFAR10.base_folder
    archive = made_up_cifar.folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, base.name)
    known = CIFAR["cifar10"]._replace(sha256=download.digest(archive))
    monkeypatch.setitem(CIFAR, "cifar10", known)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    before, _, _ = load_cifar("cifar10", made_up_cifar.folder)
    (base / "data_batch_3").write_bytes(b"")
    (base / "test_batch").unlink()
    after, _, _ = load_cifar("cifar10", made_up_cifar.folder)
    assert before.images.equal(after.images) and before.clean_labels.equal(after.clean_labels)
