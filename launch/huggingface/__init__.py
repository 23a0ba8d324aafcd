"""Models in and out of Hugging Face's format: a folder with config.json and safetensors, never
pickle.
"""
