"""Loads a converted language model with transformers, generates a text, trains the model with the Trainer, and saves it.

usage: python generate.py MODEL.mpo OUTPUT.mpo
"""

import sys

import mpo_checkpoint  # noqa: F401  (registers the format with transformers)
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

if len(sys.argv) != 3:
    sys.exit(__doc__)
folder, output = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
print(model.model.layers[0].mlp.gate_proj)
print(model.mpo_source.report)

prompt = tokenizer("The package manager installs", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]))

texts = ["The package manager installs the files of a package."] * 8
samples = [{"input_ids": ids, "labels": ids} for ids in tokenizer(texts)["input_ids"]]
arguments = TrainingArguments(
    output, max_steps=4, learning_rate=1e-4, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no"
)
Trainer(model, arguments, train_dataset=samples).train()
model.save_pretrained(output)
