"""ModelScan's verdict on the corpus, beside ours."""
