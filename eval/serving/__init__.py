"""Engines that people serve with, on exports of a checkpoint, beside this one: their texts, drafts and speed."""
