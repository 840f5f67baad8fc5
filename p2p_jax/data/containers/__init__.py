"""Images in containers that give one by its number: zip files, ArrayRecord, Hugging Face ``datasets``."""
