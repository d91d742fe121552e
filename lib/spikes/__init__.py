"""Spikes: events and bursts, the neurons that make them, the rule that reads them, circuits."""
