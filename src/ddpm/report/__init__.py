"""What a person looks at when runs are over: figures, and a page that is assembled from what they left."""
