"""The chaos tests' own Postgres, Valkey and workers. Tests kill and pause them."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import redis
from celery import Celery

from config.embedded import Services
from config.embedded.servers import Postgres, Service, Valkey
from tests import processes
from tests.chaos.books import Key, Notes, faults, unended
from tests.processes import ROOT
from tests.waiting import eventually
from tests.workers import Worker

CHILDREN = 2
QUEUES = (
    "systemtasks",
    "systemtasks.unacked",
)  # messages that are sent, or that a worker has taken but not begun


class Server:
    """One of the two services, with all of its processes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._paused: list[psutil.Process] = []

    def start(self) -> None:
        """Start it, even after it was killed, and wait until it can be used."""
        self.service.prepare()
        self.process = self.service.start()
        assert eventually(self.service.answers, 60), f"{self.service.name} does not start"
        self.service.after_start()

    def kill(self) -> None:
        """Kill all its processes at once, as the kernel does if memory runs out."""
        killed = self._processes()
        for process in killed:
            with suppress(psutil.NoSuchProcess):  # they go by themselves, too
                process.kill()
        self.process.wait()
        psutil.wait_procs(killed, 30)

    def pause(self) -> None:
        """Make it stop answering without closing connections, like a machine that swaps."""
        self._paused = self._processes()
        for process in self._paused:
            process.suspend()

    def resume(self) -> None:
        for process in self._paused:
            process.resume()
        self._paused = []

    def restore(self) -> None:
        """Make it run again after a test has paused or killed it."""
        self.resume()
        if self.process.poll() is not None:
            self.start()

    def _processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]


class Stage:
    """The two services, and a database with our tables."""

    def __init__(self, folder: Path) -> None:
        services = Services(folder, postgres=True, valkey=True)
        self.sockets = services.run
        self.database = services.database_url()
        self.postgres = Server(Postgres(services))
        self.broker = Server(Valkey(services))
        self.broker_data = services.data / "valkey"
        self.environment = {
            **os.environ,
            "DATABASE_URL": self.database,
            "BROKER_URL": services.broker_url(),
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ALLOWED_HOSTS": "localhost",
            "HTTPS": "false",
        }
        self.app = Celery("chaos", broker=services.broker_url(), set_as_current=False)
        self.app.conf.task_default_queue = "systemtasks"
        self.valkey = redis.Redis(unix_socket_path=str(services.valkey_socket))

    def __enter__(self) -> "Stage":
        self.postgres.start()
        self.broker.start()
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env=self.environment, check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()
        self.valkey.close()
        for server in (self.postgres, self.broker):
            server.resume()
            server.kill()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def clear(self) -> None:
        """Start all services, and delete all rows and messages."""
        self.postgres.restore()
        self.broker.restore()
        with psycopg.connect(self.database) as connection:
            connection.execute("TRUNCATE systemtasks_systemtask CASCADE")
        self.valkey.flushall()


class Scene:
    """One test: its tasks, its workers, and their results."""

    def __init__(self, stage: Stage, folder: Path, count: int) -> None:
        self.stage = stage
        self.postgres = stage.postgres
        self.broker = stage.broker
        self.count = count
        """The number of tasks of the test."""
        self.rounds = 1 + count // 1000
        """The number of times to kill processes that are started again."""
        self.killed = 0
        """The number of workers' children killed so far."""
        self.messages_lost = False
        self.sent = 0
        self._folder = folder
        self._workers = 0
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.journal = folder / "journal"
        self.journal.mkdir()

    @contextmanager
    def worker(self, *options: str, launcher: tuple[str, ...] = ()) -> Iterator["ChaosWorker"]:
        """Run a worker for this test, at the same time as another one or after it."""
        self._workers += 1
        environment = {
            **self.stage.environment,
            "CHAOS_NOTES": str(self.notes),
            "JOURNAL_DIR": str(self.journal),
        }
        log = self._folder / f"worker-{self._workers}.log"
        with ChaosWorker(
            log, *options, environment=environment, launcher=launcher, scene=self
        ) as running:
            yield running

    def send(self, count: int) -> None:
        """Send `count` tasks."""
        with self.stage.app.connection_for_write() as connection:
            producer = self.stage.app.amqp.Producer(connection)
            for _ in range(count):
                self.stage.app.send_task(
                    "chaos.work", args=(self.sent,), task_id=str(uuid4()), producer=producer
                )
                self.sent += 1

    def send_to_kill(self, count: int, *, is_recorded: bool) -> None:
        """Send `count` tasks that only begin. The last one kills its worker.

        If they are recorded, they are on record as queued when this returns.
        """
        arguments = [([number], {"kills": number == count - 1}) for number in range(count)]
        if is_recorded:
            code = "import django; django.setup(); from config.celery import app\n"
            code += f"for args, kwargs in {arguments}: app.send_task('chaos.begin', args, kwargs)"
            environment = {**self.stage.environment, "DJANGO_SETTINGS_MODULE": "config.settings"}
            environment["JOURNAL_DIR"] = str(self.journal)
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
        else:
            for args, kwargs in arguments:
                self.stage.app.send_task("chaos.begin", args, kwargs)

    def unended(self, begun: Collection[Key]) -> list[str]:
        """Return the runs that are not on record correctly. All their workers were killed."""
        return unended(begun, self.stage.database)

    def finished(self) -> int:
        """Return the number of runs that have finished so far."""
        return sum(path.read_bytes().count(b"FINISHED") for path in self.notes.iterdir())

    def wait_for(self, met: Callable[[], bool], what: str) -> None:
        """Wait for the condition, for as long as all tasks may take on a busy machine."""
        assert eventually(met, 60 + self.count / 25), f"not within time: {what}"

    def work(self, count: int) -> None:
        """Send `count` tasks, and wait until half of them have finished.

        The next action then happens while the worker works. The other half must still finish.
        """
        target = self.finished() + count // 2
        self.send(count)
        self.wait_for(lambda: self.finished() >= target, f"{target} runs")

    def lose_queue(self) -> None:
        """Restart the broker empty."""
        self.broker.kill()
        shutil.rmtree(self.stage.broker_data)
        self.broker.start()
        self.messages_lost = True

    def run_out(self) -> None:
        """Wait until no message is left."""
        valkey = self.stage.valkey
        self.wait_for(lambda: not valkey.exists(*QUEUES), "an empty queue")

    def lose_reserved(self) -> None:
        """Forget the messages of a worker that was killed; Valkey would keep them for an hour."""
        self.stage.valkey.delete("systemtasks.unacked", "systemtasks.unacked_index")
        self.messages_lost = True

    def check(self) -> None:
        """Assert that all finished runs are on record, and that nothing is left to record."""
        wrong = self._faults()
        assert not wrong, "\n".join([f"{len(wrong)} faults in {self._folder}", *wrong[:10]])

    def check_soon(self) -> None:
        """Check again and again, because it may begin before a worker has written all its runs."""
        eventually(lambda: not self._faults())
        self.check()

    def left(self) -> list[str]:
        """Return the files of the journal that have a run. A worker keeps an empty one or two."""
        return sorted(path.name for path in self.journal.iterdir() if path.stat().st_size)

    def _faults(self) -> list[str]:
        queued = self.messages_lost or bool(self.stage.valkey.exists(*QUEUES))
        notes = Notes.read(self.notes)
        found = faults(notes, self.stage.database, self.killed, may_be_queued=queued)
        return found + [f"The journal holds {name}" for name in self.left()]


class ChaosWorker(Worker):
    """A worker to be killed."""

    def __init__(
        self,
        log: Path,
        *options: str,
        environment: dict[str, str],
        launcher: tuple[str, ...],
        scene: Scene,
    ) -> None:
        super().__init__(
            log,
            *("--concurrency", str(CHILDREN), *options),
            include="tests.chaos.tasks",
            environment=environment,
            launcher=launcher,
        )
        self._scene = scene

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def kill_child(self) -> None:
        """Kill the oldest child, even if it is running a task."""
        oldest = min(self.children, key=lambda child: child.create_time())
        oldest.kill()
        self._scene.killed += 1

    def kill(self) -> None:
        """Kill the worker and its children, which the kernel would kill with it."""
        self._scene.killed += CHILDREN
        children = self.children
        super().kill()
        self._wait_for(children)
        self._scene.lose_reserved()

    def wait_until_killed(self) -> None:
        """Wait until one of its tasks has killed it."""
        self.process.wait(60)
        assert self.process.returncode == -signal.SIGKILL, self.log.read_text()
        self._scene.lose_reserved()

    def note_if_it_has_ended(self) -> None:
        """Count its children as killed if it has ended by itself, because they end with it."""
        if self.process.poll() is not None:
            self._scene.killed += CHILDREN

    def shut_down(self, *, cold: bool = False) -> None:
        """Shut it down, and wait until it has ended. A cold shutdown terminates its children.

        Celery joins its pool in the handler of that signal, and sometimes never returns. Then it is
        killed, as a supervisor would do.
        """
        if cold:
            self._scene.killed += CHILDREN
        children = self.children
        self.process.send_signal(signal.SIGQUIT if cold else signal.SIGTERM)
        if cold:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
            processes.kill(self.process)
        self._wait_for(children)
        if cold:
            self._scene.lose_reserved()

    def _wait_for(self, children: list[psutil.Process]) -> None:
        self.process.wait(60)
        _, alive = psutil.wait_procs(children, 30)
        assert not alive, "children outlive their worker"
