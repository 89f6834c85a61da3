"""Checks of the public URL that receives webhooks, over the network: as the platform sees it."""
