"""What potentials of atoms share: structures, neighbours under periodic boundaries, motion along forces."""
