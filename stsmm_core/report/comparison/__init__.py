"""The report of a comparison of models: one page to send to a co-author, its tables, figures and model card."""
