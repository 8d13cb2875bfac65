"""Single stages on the test world, called by the tests and by the process that is killed."""

from pathlib import Path

import msgspec

from offline.training.manifest import RunManifest
from offline.training.material import Material
from offline.training.stage import Session
from offline.training.teacher import train_teacher, train_warm_start
from tests.offline.training import world

WARM = msgspec.structs.replace(world.SIZE.warm_start, steps=6, checkpoint_every=2)
TEACHER = msgspec.structs.replace(world.SIZE.teacher, steps=4, checkpoint_every=2, held_out_every=2)


def run_stage(stage: str, folder: Path, base: str, material: Material, session: Session) -> RunManifest:
    if stage == "warm-start":
        return train_warm_start(folder, material, "tiny", WARM, base, session)
    size = msgspec.structs.replace(world.SIZE, teacher=TEACHER)
    return train_teacher(folder, material, size, base, session, warm_start=False)
