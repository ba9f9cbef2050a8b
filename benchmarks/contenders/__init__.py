"""The contenders: each is one module, and one line here."""

from benchmarks.contenders.bare import Bare
from benchmarks.contenders.centrifugo import Centrifugo
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.nchan import Nchan
from benchmarks.contenders.notifier import Notifier
from benchmarks.contenders.socketio import NodeSocketIo, PythonSocketIo
from benchmarks.contenders.tutorial import Tutorial

ALL: tuple[Contender, ...] = (
    Notifier(),
    Tutorial(),
    PythonSocketIo(),
    NodeSocketIo(),
    Nchan(),
    Centrifugo(),
    Bare(),
)
