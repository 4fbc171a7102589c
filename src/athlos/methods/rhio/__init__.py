"""RHIO: answers that lean on their documents, learned from what the model says with its retrieval heads silenced."""
