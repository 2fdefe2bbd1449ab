"""Workers as processes of one machine, as many as KEDA and the HPA would have pods."""
