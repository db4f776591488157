"""Names of models on both versions, and what is good to send to them."""

DEV2, DEV3 = "v2/flux-dev-lora", "v3/flux-dev-lora"
SCHNELL2, SCHNELL3 = "v2/flux-schnell-lora", "v3/flux-schnell-lora"
TRAINER2, TRAINER3 = "v2/flux-dev-lora-trainer", "v3/flux-dev-lora-trainer"
TURBO2, TURBO3 = "v2/flux-dev-lora-trainer-turbo", "v3/flux-dev-lora-trainer-turbo"
LORA = {"path": "owner/lora", "scale": 1}
GOOD = b'{"prompt": "x", "data": "x", "images_data_url": "x"}'
"""A body that every model takes."""
