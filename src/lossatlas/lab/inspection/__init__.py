"""Who answers for whom: what an objective's assigner makes of a data set, before anything is trained."""
