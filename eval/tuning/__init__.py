"""Which E and d suit a checkpoint: acceptance from a pass over some texts, times from single passes."""
