"""Learn a dense reasoning reward from expert demonstrations (adversarial inverse RL)."""
