"""The reference backend: FLUX inference and LoRA training for real, with torch, diffusers and peft."""
