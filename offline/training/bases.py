"""The models that training starts from, and those that it made, as a model and a tokenizer in memory."""

from pathlib import Path
from typing import Any, NamedTuple

from offline.release.manifest import sha256_of
from offline.training.trainer_arguments import quiet_libraries
from schemas.errors import UsageError

TINY, SMOLLM2 = "tiny", "smollm2"
ADAPTER = "adapter_config.json"
_WHERE_IT_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id", "min_new_tokens")


class Base(NamedTuple):
    """A causal language model of transformers with its tokenizer; `source` is the folder or name it came from."""

    model: Any
    tokenizer: Any
    source: str


def ensure_base(name: str, home: Path) -> str:
    """The folder (or the hub's name) of the base `name`, built below `home` where it is one of ours."""
    from offline.release.models import ModelPaths
    from offline.release.student import build_base
    from offline.training.tiny import build_tiny

    if name == TINY:
        return str(build_tiny(home / "models" / "tiny-hf"))
    if name == SMOLLM2:
        paths = ModelPaths.below(home)
        build_base(paths.student_hf, paths.cache, lambda step: None)
        return str(paths.student_hf)
    return name


def load_base(source: str) -> Base:
    """The model of a folder or name in float32; an adapter is merged into its base."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    quiet_libraries()
    try:
        if (Path(source) / ADAPTER).exists():
            return Base(_plain_decoding(_merged(Path(source))), _tokenizer(source), source)
        place = str(Path(source).absolute()) if Path(source).is_dir() else source  # an adapter will name it
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"cannot load the model {source}, is a file cut short or missing? {error}") from error
    return Base(_plain_decoding(model), _tokenizer(source), source)


def save_model(base: Base, folder: Path) -> None:
    """Weights (of an adapter: its own, and where its base is) with configuration and tokenizer."""
    base.model.save_pretrained(folder)
    base.model.config.save_pretrained(folder)  # peft leaves it out, and the size of the vocabulary stands in it
    base.tokenizer.save_pretrained(folder)


def base_sha256(source: str) -> str:
    """Of the weights in a folder; "" for a name, which says itself what it is."""
    files = sorted(Path(source).glob("*.safetensors"))
    return sha256_of(files[0]) if files else ""


def _plain_decoding(model: Any) -> Any:
    """Without its maker's advice on how tokens are chosen: `generate` and TRL would take Qwen2.5's repetition penalty
    of 1.1 and top-k of 20 where nothing is said, the serving engines would not."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in _WHERE_IT_ENDS})
    return model


def _tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.padding_side = "left"  # lists are written at the right end
    return tokenizer


def _merged(folder: Path) -> Any:
    import torch
    from peft import AutoPeftModelForCausalLM, PeftConfig

    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    if Path(base).is_absolute() and not Path(base).exists():
        raise UsageError(f"{folder} is an adapter of {base}, which is gone: bring it back, or train again")
    return AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).merge_and_unload()
