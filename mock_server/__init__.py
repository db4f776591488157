"""A mock server for the WaveSpeedAI FLUX LoRA HTTP API."""
