"""Images, shards and latents."""
