"""Where an adapter comes from besides one file: folders, the hub, a live model, a fine-tune."""
