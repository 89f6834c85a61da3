"""A storm of deliveries against an application, and the comparison of both records afterwards.

The command `envoyou prove` runs it. Requires the extra `simulator`.
"""
