"""Adds PEFT's LoRA to the layers made of cores of a language model, trains it, saves it and loads it again.

usage: python lora.py MODEL.mpo OUTPUT_FOLDER
"""

import sys

import mpo_checkpoint  # noqa: F401
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

if len(sys.argv) != 3:
    sys.exit(__doc__)
folder, output = sys.argv[1:]
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(folder)
batch = tokenizer("The package manager installs the files of a package.", return_tensors="pt")
model = get_peft_model(
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
    LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
model.print_trainable_parameters()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
for step in range(5):
    loss = model(**batch, labels=batch["input_ids"]).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.3f}")
model.save_pretrained(output)

again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), output)
with torch.no_grad():
    print("loaded again:", torch.allclose(again(**batch).logits, model.eval()(**batch).logits, atol=1e-4))
