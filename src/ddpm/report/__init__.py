"""What a person looks at when runs are over: assembled from what they left."""
