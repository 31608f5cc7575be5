"""What a run of the application costs, stage by stage and beside others."""
