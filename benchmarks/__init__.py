"""Measurements that are recorded under results/benchmarks."""
