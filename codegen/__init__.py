"""The generator: one schema in, every surface out (contracts, resources, routes, documents, TypeScript)."""
