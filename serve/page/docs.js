// Swagger UI for this endpoint's OpenAPI document; its scripts are served locally.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
