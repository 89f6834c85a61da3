"""Health of a process, for probes of an orchestrator or a load balancer: `live`, `ready` and `worker`."""
