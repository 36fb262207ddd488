"""What a test looks at: answers, statements, tables, logs, the schema, and a model to compare with."""
