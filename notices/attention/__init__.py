"""Lists what somebody has to see to in an environment: what did not happen, why, and what to do (SPEC §28)."""
