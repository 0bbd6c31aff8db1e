"""SavedModels as TensorFlow writes them, and such as nobody should load."""
