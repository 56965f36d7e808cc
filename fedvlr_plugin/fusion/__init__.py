"""Server-side multi-view fusion and the client-side router (algorithm.md sections 3 and 4)."""
