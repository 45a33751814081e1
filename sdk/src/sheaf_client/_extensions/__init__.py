"""Operations written by hand that a resource has beside its generated ones (`extends` in the schema)."""
