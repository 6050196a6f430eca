// Swagger UI over the endpoint's own description; the scripts come from this endpoint too.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
