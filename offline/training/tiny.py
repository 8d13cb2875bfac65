"""The base of the size `tiny`: a Llama of random weights with a tokenizer of its own that learns in a minute.

A table of 1,024 tokens, not a real model's 49,152: with those, the table is all of the model and of its time. The
output has weights of its own and not the table's: what may follow a token is then learnt in a third of the steps.
"""

from collections.abc import Iterable
from pathlib import Path

from offline.release.folders import build_folder

TOKENS, WIDTH = 1_024, 64
HEADLINES = 2_000  # of the generated world, which the tokenizer is fitted to; bytes spell whatever else is written
FILL, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # named as SmolLM2 names them
MADE = "tiny-2"  # raise it when another model is made


def build_tiny(folder: Path) -> Path:
    """`folder`, made once and anew when this code makes another model."""
    mark = folder / "made-by"
    if not mark.exists() or mark.read_text(encoding="utf-8") != MADE:
        build_folder(folder, _fill)
    return folder


def _fill(folder: Path) -> None:
    from offline.simulate import SimulationSettings
    from offline.simulate.generated import generated_world
    from schemas.prompt import LABELS

    stories = generated_world(SimulationSettings(articles=HEADLINES)).stories
    labels = [f"{label}: " for label in (*LABELS.values(), "News searches")]
    write_tokenizer(folder, [*(story.article.title for story in stories), *labels * 50], TOKENS)
    write_tiny(folder, folder)
    (folder / "made-by").write_text(MADE, encoding="utf-8")


def write_tokenizer(folder: Path, texts: Iterable[str], tokens: int) -> None:
    """A byte-level BPE of `tokens` tokens, fitted to `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens,
        special_tokens=[FILL, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    ).save_pretrained(folder)


def write_tiny(tokenizer_from: Path, folder: Path, *, seed: int = 7, width: int = WIDTH, tied: bool = False) -> None:
    """Four blocks of random weights on the tokenizer of another folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=4,
        num_attention_heads=max(2, width // 16),
        num_key_value_heads=max(1, width // 32),
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
