"""Prints what a model answers to a prompt, always the same: the most likely tokens.

usage: python answer.py MODEL_FOLDER PROMPT [TOKENS]
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
folder, prompt, count = sys.argv[1], sys.argv[2], int((sys.argv[3:] or [40])[0])
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
chat = tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
answer = model.generate(**chat, max_new_tokens=count, do_sample=False)[0, chat["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
