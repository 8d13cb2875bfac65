"""Single stages on the test world, called by the tests and by the process that is killed."""

from pathlib import Path

import msgspec

from offline.training.manifest import RunManifest
from offline.training.material import Material
from offline.training.stage import Session
from offline.training.student import Method, train_student
from offline.training.teacher import train_teacher, train_warm_start
from tests.offline.training import world

WARM = msgspec.structs.replace(world.SIZE.warm_start, steps=6, checkpoint_every=2)
TEACHER = msgspec.structs.replace(world.SIZE.teacher, steps=4, checkpoint_every=2, held_out_every=2)


STUDENT_SIZE = msgspec.structs.replace(
    world.SIZE,
    student=msgspec.structs.replace(
        world.SIZE.student,
        steps=2,
        checkpoint_every=1,
        warm_start=msgspec.structs.replace(world.SIZE.student.warm_start, steps=4, checkpoint_every=2),
    ),
)


def run_student(
    folder: Path, material: Material, teacher: Path, session: Session, *, method: Method = "on-policy"
) -> RunManifest:
    return train_student(folder, material, STUDENT_SIZE, teacher, session, method=method)


def run_stage(stage: str, folder: Path, base: str, material: Material, session: Session) -> RunManifest:
    if stage == "student":
        return run_student(folder, material, Path(base), session)
    if stage == "warm-start":
        return train_warm_start(folder, material, "tiny", WARM, base, session)
    size = msgspec.structs.replace(world.SIZE, teacher=TEACHER)
    return train_teacher(folder, material, size, base, session, warm_start=False)
