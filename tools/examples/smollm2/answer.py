"""Prints a model's answer to a prompt. The answer is always the same, because each token is the most likely one.

usage: python answer.py MODEL_FOLDER PROMPT [TOKENS]      (a dense folder, or what mpo restore made; default: 40 tokens)
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
folder, prompt, count = sys.argv[1], sys.argv[2], int((sys.argv[3:] or [40])[0])
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
chat = tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
answer = model.generate(**chat, max_new_tokens=count, do_sample=False)[0, chat["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
