"""The outbox: tells MLflow, webhooks and Slack what the dispatcher has committed.

A process of its own, so that nobody waits for it.
"""
