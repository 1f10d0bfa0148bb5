"""Which exit and how many drafts suit a checkpoint: acceptance from one pass over some texts, times from some passes."""
